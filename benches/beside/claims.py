"""What Pierhead is to reach: bounds for ratios to the other sides, and for some figures as they are."""

from dataclasses import dataclass

H = ("h1", "h2")
MANIFESTS = [f"{method} manifest by {what}, {version}" for method in ("GET", "HEAD") for what in ("tag", "digest")
             for version in H]


@dataclass
class Claim:
    """A figure of one work, and its bounds: against a side's letter, or "" for the figure itself, or another work of
    the same side. `side` is whose figure it is: Pierhead with its own registry, or before docker-registry (F)."""
    work: str
    figure: str
    bounds: dict
    side: str = "E"

    def met(self, against, value):
        sign, bound = self.bounds[against]
        return value >= bound if sign == ">=" else value <= bound


def claim(works, figure, bounds, side="E"):
    """`bounds` is written as in a table: "N >= 30; R >= 3.5"."""
    parsed = {}
    for part in bounds.split("; "):
        against, sign, bound = part.rsplit(" ", 2)
        parsed[against.strip().removeprefix("itself")] = (sign, float(bound))
    return [Claim(work, figure, parsed, side) for work in ([works] if isinstance(works, str) else works)]


CLAIMS = [
    *claim("handshake, ECDSA", "cpu", "N <= 0.6; R <= 0.5"),
    *claim("resumption", "cpu", "N <= 0.8; R <= 0.8"),
    *claim([f"GET /v2/, {version}" for version in H], "rate", "N >= 30; R >= 3.5; S >= 0.55"),
    *claim(MANIFESTS, "rate", "N >= 40; R >= 8; S >= 0.75"),
    *claim("GET manifest by tag, h1", "p99", "N <= 0.1; R <= 0.3"),
    *claim("tags list", "rate", "N >= 20; R >= 5"),
    *claim([f"10 KiB blobs, {version}" for version in H], "rate", "N >= 40; R >= 20; S >= 0.75"),
    *claim("tokens", "rate", "GET /v2/, h1 >= 0.5"),
    *claim("pull by 1, h1", "rate", "N >= 2.8; R >= 1.1; S >= 1.15"),
    *claim("pull by 8, h1", "rate", "N >= 3.3; R >= 1.1; S >= 1.05"),
    *claim("pull by 64, h1", "rate", "N >= 3.6; R >= 1.1; S >= 1.05"),
    *claim([f"pull by {clients}, h1" for clients in (1, 8, 64)], "cpu", "S <= 0.75"),
    *claim("pull, h2", "rate", "N >= 1.9; R >= 1.5; S >= 1.1"),
    *claim(["push, monolithic", "push, streamed"], "rate", "N >= 2.8; R >= 1.4"),
    *claim(["push, monolithic", "push, streamed"], "cpu", "N <= 0.36; R <= 0.8"),
    *claim("8 pushes at once", "rate", "N >= 3.4; R >= 1.6"),
    *claim("8 pushes at once", "cpu", "N <= 0.33"),
    *claim("4 KiB blobs pushed by 16", "rate", "N >= 3; R >= 2"),
    *claim("memory", "idle", "itself <= 25; S <= 1.5"),
    *claim("memory", "rest", "itself <= 30"),
    *claim("memory", "load", "itself <= 75"),
    *claim("start with many repositories", "milliseconds", "itself <= 150"),
    *claim([f"pull by {clients}, h1" for clients in (1, 8, 64)], "rate", "N >= 1.6", "F"),
    *claim([f"pull by {clients}, h1" for clients in (1, 8, 64)], "front_cpu", "N <= 0.5", "F"),
    *claim(["push, monolithic", "push, streamed", "8 pushes at once"], "rate", "N >= 1.0", "F"),
    *claim("GET manifest by tag, h1", "rate", "N >= 1.1", "F"),
]
