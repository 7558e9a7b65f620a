"""Map tiles of the rasters, and thumbnails."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["imagery"])
