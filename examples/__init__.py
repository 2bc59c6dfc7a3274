"""Benches, firmware and manifests to start from; `proxyflash demo` copies one into an empty folder."""
