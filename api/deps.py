"""What routes ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.service import HomeService


def _service(request: Request) -> HomeService:
    service: HomeService = request.app.state.service
    return service


Service = Annotated[HomeService, Depends(_service)]
