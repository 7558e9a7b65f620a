"""Map tiles of the grid tiles, their legend, their footprints, and the tiles at a place."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["tiles"])
