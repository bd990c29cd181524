"""The simulated world: asyncio on SimPy, machines that crash and pause, a network, and the protocols of `core` unchanged."""
