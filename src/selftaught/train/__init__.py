"""The training loop and its steps: self-distillation and supervised fine-tuning."""
