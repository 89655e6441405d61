"""Beam search with a causal language model: the state of one batch, and its steps.

`model.generate` computes the prompt once per beam, copies the whole cache at every step, and
carries finished sentences along. Here a sentence is one row of the batch, and its beams are queries
side by side. The prompt is computed once (and its beginning, if all prompts of a batch share it,
once for the batch). Keys and values are written into free places of the cache: the attention mask
alone says which of them a beam sees, and only the mask is reordered. When no place is free, those
that no beam sees any more are given up: beams soon share all but their last tokens, so the cache
grows by about one place a step, and not by one per beam. Finished sentences leave the batch.

The search is that of `model.generate(num_beams=…, do_sample=False, early_stopping=False,
length_penalty=1.0)` of transformers 5. In fp32 it finds the same tokens, except where hypotheses
are so close that rounding decides, which is often in lower precisions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

ENGINE = "mlq_utils beam search 2"
"""Name of the search in records. The number is raised when results can change."""
DROP = 1 / 8
"""Share of finished sentences at which they leave the batch, which costs a copy of the rest."""
STEPS, WIDTH = 8, 16
"""Steps for which the cache gets free places when it is packed, which costs a copy; and what its
length is a multiple of, so that shapes repeat and kernels on a GPU need not copy the mask."""


@dataclass(frozen=True)
class Output:
    """What beam search found for one prompt.

    Attributes:
        ids: The generated token ids, without the end-of-sentence token.
        score: Sum of the log-probabilities (natural logarithm) of the generated tokens, the
            end-of-sentence token included, divided by their number.
        finished: Whether the model ended the sentence. If not, the cap did.
    """

    ids: list[int]
    score: float
    finished: bool


class _Layer(DynamicLayer):
    """A cache layer that holds the prompts, and after `pack` has free places at its end."""

    start: int | None = None
    """First free place, once there are any."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values of shape (batch, heads, new, width); return all, free places too."""
        if self.start is None:
            return super().update(key_states, value_states)
        first, self.start = self.start, self.start + key_states.shape[2]
        self.keys[:, :, first : self.start] = key_states
        self.values[:, :, first : self.start] = value_states
        return self.keys, self.values

    def pack(self, rows: torch.Tensor, places: torch.Tensor, start: int) -> None:
        """Keep these rows, and of each row these places, of shape (rows, places)."""
        _, heads, length, width = self.keys.shape
        lines = rows[:, None] * heads + torch.arange(heads, device=rows.device)
        lines = (lines[..., None] * length + places[:, None]).flatten()
        size = len(rows), heads, places.shape[1], width
        self.keys = self.keys.reshape(-1, width).index_select(0, lines).view(size)
        self.values = self.values.reshape(-1, width).index_select(0, lines).view(size)
        self.start = start


class Batch:
    """The state of the search for a batch of sentences.

    B is the number of sentences still in the batch, K of beams, and T of tokens generated so far.

    Attributes:
        live: Number of the sentence in each row, of shape (B,).
        tokens: Generated tokens of the running beams, best first, of shape (B, K, T).
        scores: Their summed log-probabilities, of shape (B, K).
        ended: Mean log-probabilities of the best ended hypotheses, of shape (B, K), filled up with
            -1e9.
        best: Number of tokens of the best ended hypothesis, and these, of shape (B, 1 + cap).
        seen: Whether a beam sees a place of the cache, of shape (B, K, places).
        start: First free place of the cache.
        done: Whether the search for a sentence is over, of shape (B,).
    """

    def __init__(
        self, model: PreTrainedModel, prompts: list[list[int]], caps: list[int], beams: int
    ) -> None:
        """Compute the prompts. `translation.beam_search` has checked the arguments."""
        self.beams, self.cache, device = beams, Cache(layer_class_to_replicate=_Layer), model.device
        self.compute = partial(model, past_key_values=self.cache, use_cache=True)
        last = min(map(len, prompts)) - 1
        shared = next((i for i in range(last) if len({p[i] for p in prompts}) > 1), last)
        if shared:  # all prompts begin with it: computed once, and copied to every row
            self.compute(torch.tensor([prompts[0][:shared]], device=device), logits_to_keep=1)
            self.cache.batch_repeat_interleave(len(prompts))
        ids = pad_sequence([torch.tensor(p[shared:]) for p in prompts], True, 0, "left")
        self.lengths = torch.tensor([len(p) for p in prompts], device=device)
        self.start = width = shared + ids.shape[1]
        seen = torch.arange(width, device=device) >= (width - self.lengths + shared)[:, None]
        seen[:, :shared] = True
        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, shared:]
        # Logits of shape (B, 1, V): the prompt is one beam, which becomes K at the first step.
        # The last logits are taken by a list: of a slice, whose rows are not neighbours, torch
        # would multiply each row with a copy of the head of its own.
        self.logits = self.compute(
            ids.to(device),
            attention_mask=seen.long(),
            position_ids=positions,
            logits_to_keep=torch.tensor([-1], device=device),
        ).logits
        if not torch.isfinite(self.logits).all():
            raise ValueError("the model returns NaN or infinity: its weights are damaged")
        self.seen = seen[:, None]
        self.live = torch.arange(len(prompts), device=device)
        self.caps = torch.tensor(caps, device=device)
        self.tokens = torch.zeros(len(prompts), 1, 0, dtype=torch.long, device=device)
        self.scores = torch.zeros(len(prompts), 1, device=device)
        self.ended = torch.full((len(prompts), beams), -1e9, device=device)
        self.best = torch.zeros(len(prompts), max(caps) + 1, dtype=torch.long, device=device)
        self.done = torch.zeros_like(self.live, dtype=torch.bool)

    def run(self, eos: int) -> list[Output]:
        """Search until every sentence is done."""
        found = {}
        while True:
            parents = self._extend(eos)
            generated = self.tokens.shape[2]
            # The rule of transformers: stop when no running beam beats the worst of K ended ones at
            # its present mean. The second bound changes no result: log-probabilities are negative,
            # so no later mean exceeds the best sum now, divided by the cap.
            running = self.scores[:, 0]
            hopeless = running / generated <= self.ended[:, -1]
            hopeless |= running / self.caps < self.ended[:, 0]
            self.done |= hopeless | (self.caps <= generated)
            count = int(self.done.sum())  # in most steps a GPU is waited for only here
            self.seen = self.seen.gather(1, parents[..., None].expand(-1, -1, self.seen.shape[2]))
            full = self.start + self.beams > self.seen.shape[2]
            if full or count >= len(self.done) * DROP:
                over = (each[self.done].tolist() for each in (self.live, self.best, self.ended))
                for i, (length, *ids), (score, *_) in zip(*over, strict=True):
                    finished = ids[length - 1] == eos
                    found[i] = Output(ids[: length - finished], score, finished)
                if count == len(self.done):
                    return [output for _, output in sorted(found.items())]
                self._pack()
            self._forward()

    def _extend(self, eos: int) -> torch.Tensor:
        """Extend every beam by a token and record what ends.

        Of 2 K candidates the K best that do not end run on. Those that end count only if they are
        among the K best, as in transformers.

        Returns:
            The parent of each new beam, of shape (B, K).
        """
        beams, rows = self.beams, torch.arange(len(self.live), device=self.live.device)[:, None]
        candidates = 2 * beams if beams > 1 else 1
        # The best of each beam first, which is cheaper than one search among K * V and as exact.
        logs, ids = self.logits.log_softmax(-1, torch.float).topk(candidates, dim=-1)
        logs = (logs + self.scores[..., None]).flatten(1)
        logs, picked = logs.topk(candidates, dim=-1)
        parents, ids = picked // candidates, ids.flatten(1).gather(1, picked)
        extended = torch.cat([self.tokens[rows, parents], ids[..., None]], dim=2)
        generated = extended.shape[2]
        ends = (ids == eos) | (self.caps <= generated)[:, None]
        news = (ends & ~self.done[:, None])[:, :beams]
        means = torch.where(news, logs[:, :beams] / generated, -1e9)
        mean, beam = means.max(1, keepdim=True)
        new = torch.cat([torch.full_like(beam, generated), extended[rows, beam][:, 0]], 1)
        old = self.best[:, : generated + 1]
        old.copy_(torch.where(mean > self.ended[:, :1], new, old))
        self.ended = torch.cat([self.ended, means], 1).topk(beams, dim=-1).values
        self.scores, kept = (logs - 1e9 * ends.float()).topk(beams, dim=-1)
        self.tokens = extended[rows, kept]
        return parents.gather(1, kept)

    def _pack(self) -> None:
        """Keep what is not done, and of the cache the places that a beam sees; add free places."""
        rows = (~self.done).nonzero()[:, 0]
        for name in ("live", "lengths", "caps", "tokens", "scores", "ended", "best", "seen"):
            setattr(self, name, getattr(self, name)[rows])
        self.done = torch.zeros_like(rows, dtype=torch.bool)
        seen = self.seen.any(1)
        self.start = int(seen.sum(1).max())
        size = -(-(self.start + STEPS * self.beams) // WIDTH) * WIDTH
        order = seen.byte().argsort(dim=1, descending=True, stable=True)[:, : self.start]
        # What lies in a free place is seen by no beam, but it has to be finite.
        places = pad(order, (0, size - self.start))
        for layer in self.cache.layers:
            layer.pack(rows, places, self.start)
        self.seen = self.seen.gather(2, order[:, None].expand(-1, self.beams, -1))
        self.seen = pad(self.seen, (0, size - self.start))

    def _forward(self) -> None:
        """Feed the last token of every beam, which sees what its parent saw, and itself."""
        start, self.start = self.start, self.start + self.beams
        self.seen[..., start : self.start] = torch.eye(self.beams, device=self.seen.device)
        hidden = torch.zeros(self.seen.shape, dtype=self.logits.dtype, device=self.seen.device)
        hidden.masked_fill_(~self.seen, torch.finfo(hidden.dtype).min)
        positions = self.lengths[:, None] + self.tokens.shape[2] - 1
        self.logits = self.compute(
            self.tokens[..., -1],
            attention_mask=hidden[:, None],
            position_ids=positions.expand(-1, self.beams),
        ).logits
