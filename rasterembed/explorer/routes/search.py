"""Searches for similar tiles, and the similarity of all tiles."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["search"])
