"""The content of the store: cards, details of a view, and progress of runs."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["store"])
