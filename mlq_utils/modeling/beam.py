"""Beam search with a causal language model: the state of one batch, and its steps.

`model.generate` computes the prompt once per beam, copies the whole cache at every step, and
carries finished sentences along. Here a sentence is one row of the batch, and its beams are queries
side by side. The prompt is computed once (and its beginning, if all prompts of a batch share it,
once for the batch). Keys and values are written once and never moved: the attention mask alone says
which of them a beam sees, and only the mask is reordered. Finished sentences leave the batch.

The search is that of `model.generate(num_beams=…, do_sample=False, early_stopping=False,
length_penalty=1.0)` of transformers 5. In fp32 it finds the same tokens, except where hypotheses
are so close that rounding decides, which is often in lower precisions.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

ENGINE = "mlq_utils beam search 1"
"""Name of the search in records. The number is raised when results can change."""
DROP = 1 / 8
"""Share of finished sentences at which they leave the batch, which costs a copy of the rest."""


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
    """A cache layer that grows in place, in a buffer that is copied only when it is full."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of shape (batch, heads, new, width); return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.length, self.buffers = 0, (key_states[:, :, :0], value_states[:, :, :0])
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.buffers[0].shape[2]:
            spare = key_states.shape[0], key_states.shape[1], 64 + self.length // 4
            self.buffers = tuple(
                torch.cat([old[:, :, :start], new, new.new_empty(*spare, new.shape[3])], 2)
                for old, new in zip(self.buffers, (key_states, value_states), strict=True)
            )
        else:
            self.buffers[0][:, :, start : self.length] = key_states
            self.buffers[1][:, :, start : self.length] = value_states
        self.keys, self.values = (b[:, :, : self.length] for b in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        self.buffers = tuple(b[indices] for b in self.buffers)
        self.keys, self.values = (b[:, :, : self.length] for b in self.buffers)


class Batch:
    """The state of the search for a batch of sentences.

    B is the number of sentences still in the batch, K of beams, and T of tokens generated so far.

    Attributes:
        live: Number of the sentence in each row, of shape (B,).
        tokens: Generated tokens of the running beams, best first, of shape (B, K, T).
        scores: Their summed log-probabilities, of shape (B, K).
        ended: Mean log-probabilities of the best ended hypotheses, of shape (B, K), filled up with
            -1e9.
        best: Tokens and score of the best ended hypothesis of each sentence.
        mask: Added to attention: 0 where a beam sees a key, of shape (B, 1, K, prompt + K * cap).
    """

    def __init__(
        self, model: PreTrainedModel, prompts: list[list[int]], caps: list[int], beams: int
    ) -> None:
        """Compute the prompts. `translation.beam_search` has checked the arguments."""
        self.model, self.beams, device = model, beams, model.device
        self.cache = Cache(layer_class_to_replicate=_Layer)
        last = min(map(len, prompts)) - 1
        shared = next((i for i in range(last) if len({p[i] for p in prompts}) > 1), last)
        if shared:  # all prompts begin with it: computed once, and copied to every row
            self._call(torch.tensor([prompts[0][:shared]], device=device), logits_to_keep=1)
            self.cache.batch_select_indices(torch.zeros(len(prompts), dtype=torch.long))
        width = max(map(len, prompts))
        ids = pad_sequence([torch.tensor(p[shared:]) for p in prompts], True, 0, "left")
        self.lengths = torch.tensor([len(p) for p in prompts], device=device)
        seen = torch.arange(width, device=device) >= (width - self.lengths + shared)[:, None]
        seen[:, :shared] = True
        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, shared:]
        # Logits of shape (B, 1, V): the prompt is one beam, which becomes K at the first step.
        self._call(
            ids.to(device), attention_mask=seen.long(), position_ids=positions, logits_to_keep=1
        )
        if not torch.isfinite(self.logits).all():
            raise ValueError("the model returns NaN or infinity: its weights are damaged")
        kind = self.logits.dtype
        size = len(prompts), 1, beams, width + beams * max(caps)
        self.mask = torch.full(size, torch.finfo(kind).min, dtype=kind, device=device)
        self.mask[..., :width].masked_fill_(seen[:, None, None], 0)
        self.own = torch.eye(beams, device=device, dtype=torch.bool)
        self.live = torch.arange(len(prompts), device=device)
        self.caps = torch.tensor(caps, device=device)
        self.tokens = torch.zeros(len(prompts), 1, 0, dtype=torch.long, device=device)
        self.scores = torch.zeros(len(prompts), 1, device=device)
        self.ended = torch.full((len(prompts), beams), -1e9, device=device)
        self.best: list[tuple[list[int], float]] = [([], -math.inf)] * len(prompts)

    def run(self, eos: int) -> list[Output]:
        """Search until every sentence is done."""
        done = torch.zeros_like(self.live, dtype=torch.bool)
        while True:
            parents = self._extend(eos, done)
            generated = self.tokens.shape[2]
            if self.beams == 1:
                hopeless = self.ended[:, 0] > -1e9
            else:
                # The rule of transformers: stop when no running beam beats the worst of K ended
                # ones at its present mean. The second bound changes no result: log-probabilities
                # are negative, so no later mean exceeds the best sum now, divided by the cap.
                running = self.scores[:, 0]
                hopeless = running / generated <= self.ended[:, -1]
                hopeless |= running / self.caps < self.ended[:, 0]
            done |= hopeless | (self.caps <= generated)
            count = int(done.sum())
            if count == len(done):
                break
            if count >= len(done) * DROP:
                keep = (~done).nonzero()[:, 0]
                for name in ("lengths", "mask", "live", "caps", "tokens", "scores", "ended"):
                    setattr(self, name, getattr(self, name)[keep])
                self.cache.batch_select_indices(keep)
                parents, done = parents[keep], done[keep]
            self._forward(parents)
        return [
            Output(ids[:-1] if ids[-1] == eos else ids, score, ids[-1] == eos)
            for ids, score in self.best
        ]

    def _extend(self, eos: int, done: torch.Tensor) -> torch.Tensor:
        """Extend every beam by a token and record what ends.

        Of 2 K candidates the K best that do not end run on. Those that end count only if they are
        among the K best, as in transformers.

        Returns:
            The parent of each new beam, of shape (B, K).
        """
        beams, rows = self.beams, torch.arange(len(self.live), device=self.live.device)[:, None]
        candidates = 2 * beams if beams > 1 else 1
        logs = self.logits.float().log_softmax(-1) + self.scores[..., None]
        # The best of each beam first, which is cheaper than one search among K * V and as exact.
        logs, ids = logs.topk(candidates, dim=-1)
        logs, picked = logs.flatten(1).topk(candidates, dim=-1)
        parents, ids = picked // candidates, ids.flatten(1).gather(1, picked)
        generated = self.tokens.shape[2] + 1
        capped = (self.caps <= generated)[:, None]
        ends = (ids == eos) | capped
        news = (ends & ~done[:, None])[:, :beams]
        if news.any():
            means = torch.where(news, logs[:, :beams] / generated, -1e9)
            self.ended, where = torch.cat([self.ended, means], 1).topk(beams, dim=-1)
            better = (where[:, 0] >= beams).nonzero()[:, 0]
            beam = where[better, 0] - beams
            past = self.tokens[better, parents[better, beam]]
            found = torch.cat([past, ids[better, beam][:, None]], dim=1).tolist()
            for i, *best in zip(
                self.live[better].tolist(), found, self.ended[better, 0].tolist(), strict=True
            ):
                self.best[i] = tuple(best)
        if beams > 1:
            logs = logs - 1e9 * ends.float()
            self.scores, kept = logs.topk(beams, dim=-1)
            parents, ids = parents.gather(1, kept), ids.gather(1, kept)
        else:
            self.scores = logs
        self.tokens = torch.cat([self.tokens[rows, parents], ids[..., None]], dim=2)
        return parents

    def _forward(self, parents: torch.Tensor) -> None:
        """Feed the last token of every beam, which sees what its parent saw, and itself."""
        start = self.cache.get_seq_length()
        stop = start + self.beams
        seen = self.mask[..., :start]
        if self.tokens.shape[2] > 1:  # at the first step every beam has seen just the prompt
            seen.copy_(seen.gather(2, parents[:, None, :, None].expand_as(seen)))
        self.mask[..., start:stop].masked_fill_(self.own, 0)
        positions = self.lengths[:, None] + self.tokens.shape[2] - 1
        self._call(
            self.tokens[..., -1],
            attention_mask=self.mask[..., :stop],
            position_ids=positions.expand(-1, self.beams),
        )

    def _call(self, ids: torch.Tensor, **options: Any) -> None:
        self.logits = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, **options
        ).logits
