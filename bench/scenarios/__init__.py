"""One scenario per file: `async def run(target) -> figures`, listed in `bench/__main__.py`."""
