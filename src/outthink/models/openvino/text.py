"""The text of a sample as it grows, and where it ends."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from outthink.errors import EngineError, UsageError
from outthink.models.gguf import Header
from outthink.models.openvino.process import brief
from outthink.types import Message

_END_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "</s>")
"""Models end with any of these; a GGUF names only one."""


class WrittenText:
    """The model's tokenizer and chat template."""

    def __init__(self, openvino_genai: Any, header: Header) -> None:
        # from a file without the weights, for loading it from the model's own would load those as well
        with tempfile.TemporaryDirectory(prefix="outthink-", ignore_cleanup_errors=True) as folder:
            vocabulary = Path(folder, "vocabulary.gguf")
            vocabulary.write_bytes(header.vocabulary)
            try:
                self._tokenizer = openvino_genai.Tokenizer(str(vocabulary))
            except RuntimeError as failure:
                raise EngineError(f"OpenVINO cannot read the tokenizer: {brief(failure)}") from None
        self.prompt = lru_cache(maxsize=256)(self._prompt)
        known = {self._tokenizer.get_eos_token_id()}
        for mark in _END_MARKS:
            ids = self.encode(mark)
            if len(ids) == 1:
                known.add(ids[0])
        self.end_marks = known

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; nothing is added."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist())

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Texts of several lists of ids, special tokens removed."""
        texts: list[str] = self._tokenizer.decode(ids)
        return texts

    def _prompt(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        for message in messages:
            if not isinstance(message.content, str) and any(part.kind != "text" for part in message.content):
                raise UsageError("This model reads text only; take the images, sounds and files out of the messages.")
        chat = [{"role": message.role, "content": message.text} for message in messages]
        return self.encode(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True))
