"""The pictures of the quality reports."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["qa"])
