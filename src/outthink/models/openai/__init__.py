"""A model behind a server that speaks OpenAI's API."""

from outthink.models.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
