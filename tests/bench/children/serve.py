"""How is a long-lived process asked to do something? One JSON line in, one JSON line out."""

import json
import os
import sys
import traceback


def serve(actions):
    """Answer `{"do": name, "with": {...}}` with what `actions[name](**with)` returns, until stdin closes.

    Whatever a library prints goes to stderr: stdout carries answers only.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": actions[request["do"]](**request["with"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
