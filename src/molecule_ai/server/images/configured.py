"""From the settings and the runtime registry to what the container back end is told."""

from __future__ import annotations

from molecule_ai import __version__
from molecule_ai.provisioners.docker.options import DockerOptions
from molecule_ai.provisioners.docker.tiers import CPU_SHARES, SIZES, Size
from molecule_ai.server.settings import BadSetting, Settings
from molecule_ai.server.workspaces import runtimes


def docker_options(settings: Settings) -> DockerOptions:
    """Raises `BadSetting`."""
    return DockerOptions(
        host=settings.docker_host,
        network=settings.docker_network,
        publish_address=settings.docker_publish_address,
        shares_network=settings.in_container,
        host_gateway=settings.docker_host_gateway,
        images=images(settings),
        platform=settings.molecule_image_platform,
        registry_user=settings.ghcr_user,
        registry_token=settings.ghcr_token,
        sizes=_sizes(settings),
        allow_privileged=settings.allow_privileged_tiers,
        default_directory=settings.workspace_dir,
        forget_sessions=settings.workspace_reset_session,
        org=settings.molecule_org_id.strip(),
    )


def images(settings: Settings) -> dict[str, str]:
    """The image of every runtime: its pin, else what the template makes of it (contract 02 §9.4)."""
    pins = _pins(settings.workspace_images)
    found = {}
    for name, runtime in runtimes.registry().items():
        if name in pins:
            found[name] = pins[name]
        elif runtime.image:
            found[name] = _from_template(settings.workspace_image_template, name, runtime.image)
    return found


def _from_template(template: str, runtime: str, image: str) -> str:
    try:
        return template.format(runtime=runtime, image=image, version=__version__)
    except (IndexError, KeyError, ValueError) as problem:
        raise BadSetting(f"WORKSPACE_IMAGE_TEMPLATE: {problem}") from problem


def _pins(text: str) -> dict[str, str]:
    found = {}
    for pin in filter(None, (part.strip() for part in text.split(","))):
        runtime, separator, image = pin.partition("=")
        if not separator or not image:
            raise BadSetting(f"WORKSPACE_IMAGES: {pin} is not of the form runtime=image")
        if runtime not in runtimes.names():
            raise BadSetting(f"WORKSPACE_IMAGES: there is no runtime {runtime}")
        found[runtime] = image
    return found


def _sizes(settings: Settings) -> dict[int, Size]:
    memory, shares = settings.memory_mb_by_tier, settings.cpu_shares_by_tier
    return {
        tier: Size(
            memory_mb=memory[tier],
            cpus=shares[tier] / CPU_SHARES,
            processes=usual.processes,
            open_files=usual.open_files,
        )
        for tier, usual in SIZES.items()
    }
