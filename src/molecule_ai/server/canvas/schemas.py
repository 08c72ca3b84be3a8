"""Viewports on the wire."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from molecule_ai.kernel.http import Number


class Viewport(Struct, frozen=True):
    """Which part of the canvas is seen."""

    x: Annotated[Number, Meta(examples=[0])]
    y: Annotated[Number, Meta(examples=[0])]
    zoom: Annotated[Number, Meta(examples=[1])]


class ViewportUpdate(Struct, frozen=True):
    """The new viewport; what is absent is 0, but a zoom has to be above it."""

    x: float = 0
    y: float = 0
    zoom: float = 0


class ViewportSaved(Struct, frozen=True):
    """It is kept."""

    status: Annotated[str, Meta(examples=["saved"])] = "saved"
