"""Images that people upload to search by them."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api", tags=["images"])
