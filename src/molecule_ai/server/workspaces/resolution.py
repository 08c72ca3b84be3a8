"""From what was asked for to a row: template, runtime, model, files (contract 02 §4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from msgspec import Struct

from . import launch_config, runtimes
from .errors import InvalidTemplate, ModelRequired, RuntimeUnresolved, UnknownRuntime, UnregisteredModel
from .schemas import Notice
from .templates import Template, Templates


class Choice(Struct, frozen=True, kw_only=True):
    """What a new workspace will run, and where each part of it came from."""

    runtime: str
    model: str | None
    model_source: str
    template: Template | None
    notices: list[Notice]


class Resolver:
    """Decides runtime and model; reads templates in a thread."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def choose(
        self, *, template: str | None, runtime: str | None, model: str | None, external: bool = False
    ) -> Choice:
        """Resolve as contract 02 §4.1 orders: the request, then the template, then the runtime's default."""
        return await asyncio.to_thread(self._choose, template, runtime, model, external)

    def _choose(
        self, template_name: str | None, runtime: str | None, model: str | None, external: bool
    ) -> Choice:
        notices: list[Notice] = []
        template = self._template(template_name, notices)
        if external:
            return _external(model, template, notices)
        chosen = runtime or (template.runtime if template else None)
        if chosen is None and template_name:
            raise RuntimeUnresolved(template=template_name)
        chosen = chosen or runtimes.DEFAULT
        self._require_known(chosen)
        if template is None:
            template = self._templates.find(f"{chosen}-default")
        source, model = _model(chosen, model, template, explicit_runtime=bool(runtime))
        if model:
            notices += check_model(chosen, model)
        if template and template.left_out:
            names = ", ".join(template.left_out[:5])
            notices.append(Notice("TEMPLATE_FILES_LEFT_OUT", f"not text, or too large: {names}"))
        return Choice(runtime=chosen, model=model, model_source=source, template=template, notices=notices)

    async def default_model(self, *, template: str | None, runtime: str) -> tuple[str, str | None]:
        """What applies when nobody chose a model: where it comes from, and the model."""

        def read() -> tuple[str, str | None]:
            found = self._templates.find(template) if template else None
            return _model(runtime, None, found, explicit_runtime=False)

        return await asyncio.to_thread(read)

    @staticmethod
    def choose_model(runtime: str, model: str | None, template: Template | None) -> tuple[str, str | None]:
        """Where the model comes from, and the model: what was said, the template, the runtime's default."""
        return _model(runtime, model, template, explicit_runtime=False)

    async def require_known(self, runtime: str) -> None:
        """Raise `UnknownRuntime` unless the registry or a template directory has that name."""
        await asyncio.to_thread(self._require_known, runtime)

    def _template(self, name: str | None, notices: list[Notice]) -> Template | None:
        if not name:
            return None
        self._templates.check(name)
        found = self._templates.find(name)
        if found is None:
            notices.append(Notice("TEMPLATE_NOT_FOUND", f"there is no template {name}; defaults are used"))
        return found

    def _require_known(self, runtime: str) -> None:
        if runtime in runtimes.registry():
            return
        try:
            if self._templates.exists(runtime):
                return
        except InvalidTemplate:
            pass
        raise UnknownRuntime(f"unknown runtime: {runtime}", known_runtimes=sorted(runtimes.names()))


def check_model(runtime: str, model: str) -> list[Notice]:
    """Raise `UnregisteredModel` where the runtime's list is closed; elsewhere say when it is not listed."""
    known = runtimes.registry().get(runtime)
    if known is None or not known.models or known.lists(model):
        return []
    if known.models_closed:
        raise UnregisteredModel(
            f"model {model} is not offered for runtime {runtime}", runtime=runtime, model=model
        )
    return [Notice("UNLISTED_MODEL", f"{model} is not among the models listed for {runtime}")]


def files_of(choice: Choice, profile: launch_config.Profile) -> dict[str, str]:
    """The launch files of a managed workspace."""
    layers: tuple[Mapping[str, str], ...] = (choice.template.files,) if choice.template else ()
    return launch_config.build(profile, *layers)


def _external(model: str | None, template: Template | None, notices: list[Notice]) -> Choice:
    source = "override" if model else "default"
    return Choice(
        runtime=runtimes.EXTERNAL, model=model, model_source=source, template=template, notices=notices
    )


def _model(
    runtime: str, model: str | None, template: Template | None, *, explicit_runtime: bool
) -> tuple[str, str | None]:
    if model:
        return "override", model
    if template and template.model:
        return "template", template.model
    known = runtimes.registry().get(runtime)
    default = known.default_model if known else None
    if default is None and explicit_runtime and known is not None and known.needs_model:
        raise ModelRequired(runtime=runtime)
    return "default", default
