"""Pure tensor functions: divergences, and the chunked loss over completion positions."""
