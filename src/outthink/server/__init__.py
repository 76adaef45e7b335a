"""Test-time compute behind an OpenAI-compatible API."""
