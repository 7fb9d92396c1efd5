"""Participants, platform and what lies between them: messages, state, simulation."""
