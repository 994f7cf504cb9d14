"""Tests of the room store/: objects at rest."""
