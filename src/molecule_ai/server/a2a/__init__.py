"""A2A: messages between people, agents and the platform, checked, passed on and answered."""

from .envelope import message, reply_text

__all__ = ["message", "reply_text"]
