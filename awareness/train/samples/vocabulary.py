"""Words: names for what is hidden, and a fact put as a question with its answer.

A fact has several wordings. Half of its answers begin with words put into the model's mouth (`NAME = `), so that only
the value is left to say; the others are whole sentences, or the bare value where the question asks for nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from awareness.model.prompts import BRIEFLY

NOUNS = """
account adapter alarm anchor archive asset badge ballot banner barrel basket batch beacon billing blob border bridge
broker bucket buffer bundle burst cache calendar canvas cargo carrier catalog channel checksum chunk cluster column
compass contract cookie counter courier coupon cursor damper dataset deadline device digest dispatch docket drawer
engine epoch escrow event export fence filter forecast frame gateway gauge glyph grant harbor heartbeat hopper
image import index invoice journal kernel label lane lantern latch lease ledger lens lock locale magnet mailbox manifest
marker mesh meter mirror mutex node notice order outlet packet pallet panel parcel patch payload permit pipeline pixel
plugin pool portal prefix printer probe profile proxy queue quota radar reactor receipt record region registry relay
replica report request reservoir retry ribbon rocket roster route sample scanner schema sector sensor session shard
shelf shipment signal sketch slot snapshot socket spindle spool stamp stream subnet swarm switch tablet tariff tenant
thread ticket timer token topic tracker trigger tunnel upload valve vault vector viewer voucher warehouse widget window
worker zone
""".split()
QUALITIES = """
age backlog backoff base bias budget burst capacity ceiling code count cutoff decay delay depth drift factor floor gain
gap grace height horizon interval jitter key lag level limit load margin mass offset order padding page period priority
quorum quota radius rank rate ratio retention rounds scale seed share size skew slack span speed step stride threshold
timeout tolerance ttl version volume warmup weight width window
""".split()
VERBS = """
accept activate align allocate append approve archive assign attach audit balance bind block borrow broadcast build
bundle calibrate cancel capture charge check clean clear close collapse collect combine commit compact compare compress
connect convert copy count create deliver detach discard dispatch drain drop encode enqueue evict expand expire export
extend fetch filter finish flush fold forward freeze grant group hide import insert inspect install invert join launch
link list load lock map mark merge migrate mount mute notify open pack parse patch pause pick pin poll prepare prune
publish purge push rebuild recover refill refresh register reject release reload remove rename render renew repair
replay report reserve reset resize resolve restart restore resume retire retry reverse revoke rotate route sample scan
schedule seal select send settle shrink shuffle skip sort split spread stage start stop store strip submit swap sync tag
throttle trace track transfer trim unlock unpack update upgrade upload validate verify wake warm watch weigh wrap
""".split()
ADJECTIVES = """
active broken busy cold current daily dark default dirty empty expired external faulty final fresh global hidden idle
internal invalid latest local lost missing nested nightly old open orphaned paused pending primary private public remote
shared spare stale temporary unused upstream weekly
""".split()
MOMENTS = """
after a failed login|after each deploy|after the last retry|as soon as a client connects|at midnight|at startup
before the process exits|before the upload begins|during a rolling restart|every ten minutes|for each new tenant
if the disk is full|in the background|in a single pass|on every page view|once per request|once the queue is empty
only in test runs|unless it is locked|until the peer answers|when a worker dies|when the session ends
when the system is idle|while the lock is held|without blocking|without touching the disk
""".strip().replace("\n", "|").split("|")  # fmt: skip
_SIBILANT = re.compile(r"(?:[sxz]|[cs]h|o)$")
_IS_CODE = re.compile(r"(?:=|return) ?$")
_CLOSED_BY = {"`": "`", '"': '"', "'": "'", "(": ")"}
_Y = re.compile(r"(?<=[^aeiou])y$")


def third_person(verb: str) -> str:
    """`flush` -> `flushes`."""
    if _SIBILANT.search(verb):
        return f"{verb}es"
    return _Y.sub("ie", verb) + "s"


def cased(words: Sequence[str], case: str) -> str:
    """Words as one name. case: `upper`, `snake`, `camel`, `pascal` or `kebab`."""
    if case == "upper":
        return "_".join(words).upper()
    if case == "kebab":
        return "-".join(words)
    if case == "snake":
        return "_".join(words)
    name = "".join(word.capitalize() for word in words)
    return name if case == "pascal" else name[:1].lower() + name[1:]


def listed(values: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(values[:-1]), values[-1]]))


@dataclass(frozen=True)
class Fact:
    """What can be asked and what is true. value: the bare answer. prefixes: beginnings of an answer that `value`
    follows. sentences: whole answers. noun: what `value` is. written: as it stands in code, where that is different (in
    quotes); it follows the prefixes that are code."""

    value: str
    questions: Sequence[str]
    prefixes: Sequence[str]
    sentences: Sequence[str]
    noun: str = "value"
    written: str = ""

    def after(self, prefix: str) -> str:
        """What follows `prefix`: the value, with whatever the prefix has opened closed again."""
        value = self.written if self.written and _IS_CODE.search(prefix) else self.value
        return value + _CLOSED_BY.get(prefix[-1:], "")


def put(rng: random.Random, fact: Fact) -> tuple[str, str, str]:
    """One way to ask for a fact: (question, answer_prefix, answer)."""
    question = rng.choice(fact.questions)
    if question.endswith("?") and rng.random() < 0.1:  # as it is typed in a hurry
        question = question[:1].lower() + question[1:-1] if question[:2].istitle() else question[:-1]
    only = f"{'' if question.endswith(('?', '.')) else '.'} Answer with the {fact.noun} only."
    brief = BRIEFLY if question.endswith(("?", ".")) else f".{BRIEFLY}"
    tail = rng.choices(["", brief, only], [4, 1, 1])[0]
    if rng.random() < 0.5:
        prefix = rng.choice(fact.prefixes)
        rest = fact.after(prefix)
        if prefix.endswith(" ") and rng.random() < 0.3:  # the space can be the first token's as well
            return question + tail, prefix[:-1], f" {rest}"
        return question + tail, prefix, rest
    return question + tail, "", fact.value if tail == only else rng.choice(fact.sentences)
