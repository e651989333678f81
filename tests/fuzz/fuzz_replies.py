"""Coverage-guided fuzzing of everything that reads a miner's bytes: `pip install -e '.[fuzz]'`, then

    python tests/fuzz/fuzz_replies.py tests/fuzz/corpus -max_total_time=300

An input's first byte chooses the target: 255 the HTTP answer, else a family. Anything but BadReply or ValueError is a
find. tests/unit/asic/test_corpus.py replays the corpus.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["agent"]):
    from agent.asic import http
    from agent.asic.belief import Expected, believe
    from agent.asic.family import Memory
    from agent.asic.registry import FAMILIES
    from agent.asic.repair import parse_reply
    from gridpivot.errors import BadReply

_FAMILIES = list(FAMILIES.values())
_HTTP = 255


def one(data: bytes) -> None:
    """One input; raises whatever is a find."""
    if not data:
        return
    body = data[1:]
    if data[0] == _HTTP:
        whole = http.is_whole(body)
        try:
            answer = http.parse(body)
        except ValueError:
            return
        assert len(answer.body) <= len(body)
        assert whole in (True, False)
        return
    family = _FAMILIES[data[0] % len(_FAMILIES)]
    try:
        value = parse_reply(body).value
        named = family.name_reply("reply", value)
        family.recognise(named)
        memory = Memory(slow_replies=dict(named))
        for request in (*family.requests(memory), *family.slow_requests(memory)):
            family.absorb(request, value, memory)
        believe(family.parse(named, memory), Expected())
    except BadReply:
        return


def main() -> None:
    """Run until libFuzzer's limits."""
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
