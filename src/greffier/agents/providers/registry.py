"""The providers of this server by their names: those of its settings, and the built-in ones."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from greffier.agents.providers.anthropic import AnthropicProvider
from greffier.agents.providers.echo import Echo
from greffier.agents.providers.openai import OpenAIProvider
from greffier.agents.providers.protocol import Provider, ProviderError, Used
from greffier.agents.providers.script import Script
from greffier.agents.providers.trying import Patience
from greffier.settings import BUILTIN_PROVIDERS, Price, ProviderSettings, Settings

_MILLION: Final = 1_000_000


class Providers:
    """Finds a provider by the name that an agent says."""

    def __init__(self, settings: Settings) -> None:
        """Know those of the settings; none is built or asked before it is needed."""
        self._settings = settings.providers
        self._built: dict[str, Provider] = {}

    def known(self) -> tuple[str, ...]:
        """The names an agent may say, the built-in ones first."""
        return (*BUILTIN_PROVIDERS, *sorted(self._settings))

    def get(self, name: str) -> Provider:
        """Find a provider; the same one each time.

        Raises:
            ProviderError: ``provider-not-configured``: there is none of this name.
        """
        if (built := self._built.get(name)) is None:
            built = self._built[name] = self._build(name)
        return built

    def price(self, name: str, model: str) -> Price | None:
        """What a model of a provider costs, if the settings say it."""
        settings = self._settings.get(name)
        return settings.prices.get(model) if settings else None

    async def close(self) -> None:
        """Close what is open."""
        built, self._built = self._built, {}
        for provider in built.values():
            await provider.close()

    def _build(self, name: str) -> Provider:
        if name in BUILTIN_PROVIDERS:
            return Echo() if name == "echo" else Script()
        settings = self._settings.get(name)
        if settings is None:
            raise ProviderError("provider-not-configured", f"This server has no provider {name!r}.")
        return build(settings)


def build(settings: ProviderSettings) -> Provider:
    """Build what a table of the settings describes."""
    key = settings.key.get_secret_value() if settings.key else None
    patience = Patience.of(settings)
    if settings.kind == "anthropic":
        # The settings are refused without a key.
        return AnthropicProvider(key=key or "", base_url=settings.base_url, patience=patience)
    return OpenAIProvider(key=key, base_url=settings.base_url, patience=patience)


def cost(used: Used, price: Price) -> Decimal:
    """What the tokens of an answer cost, exactly; cached ones are part of the input."""
    cached = min(used.cached_tokens, used.input_tokens)
    cached_price = price.input if price.cached is None else price.cached
    return (
        (used.input_tokens - cached) * price.input
        + cached * cached_price
        + used.output_tokens * price.output
    ) / _MILLION
