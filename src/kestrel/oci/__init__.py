"""Floor 2: the OCI and docker specifications as values. Pure: no I/O, no clock, no kernel.

Import the modules themselves (`from kestrel.oci.digest import Digest`): this file hands on nothing, because the
runtime imports `oci.runtime_defaults` through it and must not pay for the codec of manifests.
"""
