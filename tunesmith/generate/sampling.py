"""How the next token is chosen, in plain values.  Knows the generate options; knows no engine and no library."""

from dataclasses import dataclass

from tunesmith.config.generate import GenerateConfig

COLDEST = 1e-5
"""Temperatures below this are taken as 0."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What an engine is asked for beside the conversation.  The defaults take the likeliest token each time."""

    max_new_tokens: int = 1024
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: off"""
    num_beams: int = 1
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    skip_special_tokens: bool = True
    seed: int = 42

    @classmethod
    def from_options(cls, cfg: GenerateConfig, seed: int) -> "Sampling":
        """What the user's options ask for; `seed` is the run's."""
        return cls(
            max_new_tokens=cfg.max_new_tokens,
            do_sample=cfg.do_sample,
            temperature=cfg.temperature,
            top_p=cfg.top_p,
            top_k=cfg.top_k,
            num_beams=cfg.num_beams,
            repetition_penalty=cfg.repetition_penalty,
            length_penalty=cfg.length_penalty,
            skip_special_tokens=cfg.skip_special_tokens,
            seed=seed,
        )

    @property
    def greedy(self) -> bool:
        """True when nothing is drawn at random: sampling is off, or its temperature is 0 or so near that dividing by it
        overflows, which leaves the likeliest token alone."""
        return not self.do_sample or self.temperature < COLDEST
