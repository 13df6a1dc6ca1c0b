"""Facts about a method that reports need. They are kept in the run folder, not found by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodFacts:
    """Class attributes of a method that reports need."""

    title: str
    """Its name in tables."""
    upper_bound: bool = False
    """Whether it trains on clips that other methods may not see, and so is not ranked."""
    head: str = ""
    """Name of the head that it is designed for; empty if it takes any."""


OF_0_1_0 = {
    "finetune": MethodFacts(title="Fine-tuning"),
    "lwf": MethodFacts(title="LwF"),
    "icarl-nme": MethodFacts(title="iCaRL-NME"),
    "icarl-fc": MethodFacts(title="iCaRL-FC"),
    "ssil": MethodFacts(title="SS-IL"),
    "afc-nme": MethodFacts(title="AFC-NME"),
    "afc-lsc": MethodFacts(title="AFC-LSC"),
    "avcil": MethodFacts(title="AV-CIL", head="avcil"),
    "guided": MethodFacts(title="Guided (the paper)", head="guided"),
    "derpp": MethodFacts(title="DER++"),
    "slda": MethodFacts(title="SLDA", head="mean"),
    "ranpac": MethodFacts(title="RanPAC", head="mean"),
    "joint": MethodFacts(title="Joint (upper bound)", upper_bound=True),
}
"""The methods of version 0.1.0, whose run folders do not keep these facts; those of the paper first
and in its order. Later methods are not added: their folders contain these facts."""


def facts_without_a_run(name: str) -> MethodFacts:
    """Return the facts about a method of 0.1.0; for any other, its name as the title."""
    return OF_0_1_0.get(name, MethodFacts(title=name))
