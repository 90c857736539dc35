"""Load on the server, beside a loop of transformers' `generate` behind the same interface.

    python bench/serve.py --seconds 300 --clients 64 --out bench/serve.json

Each of the clients asks, waits for the whole answer, and asks again. A request that is told to come again (429) waits
as long as it was told. Both servers have the same model, the same questions and lengths, and the machine to themselves;
traffic goes to this machine alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

QUESTIONS = (
    "Why is the sky blue?", "Name three rivers in Europe.", "How do I boil an egg?", "What is a prime number?",
    "Write a sentence about a cat.", "Translate into French: good morning", "What is 17 plus 25?",
    "Tell me a short story.",
)  # fmt: skip
LENGTHS = (16, 32, 48, 64, 96)  # most tokens of an answer, in turn


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="smollm2-135m")
    words.add_argument("--seconds", type=float, default=300)
    words.add_argument("--peer-seconds", type=float, default=60, help="Of the transformers loop.")
    words.add_argument("--clients", type=int, default=64)
    words.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="Of each server.")
    words.add_argument("--out", type=Path)
    words.add_argument("--peer-server", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.peer_server:
        run_peer(given.peer_server)
        return
    found = {"clients": given.clients, "threads": given.threads}
    with peer(given) as (url, process):
        found["transformers"] = load(url, process, given.clients, given.peer_seconds)
    with ours(given) as (url, process):
        found["selftaught"] = load(url, process, given.clients, given.seconds)
    rates = [found[name]["tokens_a_second"] for name in ("selftaught", "transformers")]
    found["ratio"] = round(rates[0] / rates[1], 2)
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------ the servers


@contextlib.contextmanager
def ours(given: argparse.Namespace) -> Any:
    """Our server of a fresh workspace."""
    with tempfile.TemporaryDirectory() as scratch:
        base = [sys.executable, "-m", "selftaught"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
        subprocess.run([*base, "init", f"{scratch}/work", "-m", given.model], check=True, env=environment)
        command = [*base, "serve", "-w", f"{scratch}/work", "--port", "0", "--store", "--max-rows", str(given.clients)]
        with started(command, environment, "Serving") as running:
            yield running


@contextlib.contextmanager
def peer(given: argparse.Namespace) -> Any:
    """transformers behind a small HTTP server."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    command = [sys.executable, __file__, "--peer-server", given.model]
    with started(command, environment, "Serving") as running:
        yield running


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], mark: str) -> Any:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if mark in line)
        found = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
        assert found
        yield found[0], process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # a loop of `generate` with a long queue
            process.kill()
            process.wait()


def run_peer(name: str) -> None:
    """Answers one request after another with transformers' `generate`, in the type that we compute in."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selftaught.models.load import compute_dtype
    from selftaught.models.resolve import resolve_model

    path = resolve_model(name)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=compute_dtype()).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    at_work = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = tokenizer.apply_chat_template(
                asked["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with at_work, torch.inference_mode():
                ids = model.generate(
                    **prompt, max_new_tokens=asked["max_tokens"], do_sample=False, pad_token_id=tokenizer.eos_token_id
                )[0, prompt["input_ids"].shape[1] :]
            body = json.dumps(
                {
                    "choices": [{"message": {"content": tokenizer.decode(ids, skip_special_tokens=True)}}],
                    "usage": {"completion_tokens": len(ids)},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"Serving at http://127.0.0.1:{server.server_port}/v1", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


# --------------------------------------------------------------------------------------------- the load


def load(url: str, process: subprocess.Popen[str], clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients saw in so many seconds."""
    end = time.monotonic() + seconds
    statuses: Counter[str] = Counter()
    times: list[float] = []
    tokens = [0] * clients
    memory: list[float] = []

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            turn += 1
            body = {
                "messages": [{"role": "user", "content": QUESTIONS[turn % len(QUESTIONS)]}],
                "max_tokens": LENGTHS[turn % len(LENGTHS)],
                "temperature": 0,
            }
            begun = time.monotonic()
            try:
                answer = asked(f"{url}/chat/completions", body)
            except urllib.error.HTTPError as error:
                statuses[str(error.code)] += 1
                time.sleep(float(error.headers.get("Retry-After") or 1))
            except OSError as error:
                statuses[type(error).__name__] += 1
            else:
                statuses["200"] += 1
                if time.monotonic() <= end:
                    tokens[number] += answer["usage"]["completion_tokens"]
                    times.append(time.monotonic() - begun)

    for number in range(clients):
        threading.Thread(target=client, args=(number,), daemon=True).start()
    while time.monotonic() < end:
        memory.append(resident_mib(process.pid))
        time.sleep(2)
    third = max(1, len(memory) // 3)
    return {
        "seconds": seconds,
        "answers": len(times),
        "statuses": dict(statuses),  # of requests that were answered in that time
        "tokens_a_second": round(sum(tokens) / seconds, 1),
        "answer_seconds": {
            "median": round(statistics.median(times), 2),
            "95%": round(sorted(times)[int(0.95 * (len(times) - 1))], 2),
        },
        "memory_mib": {
            "first third's peak": round(max(memory[:third])),
            "last third's peak": round(max(memory[-third:])),
        },
    }


def asked(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def resident_mib(pid: int) -> float:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
