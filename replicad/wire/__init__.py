"""The wire: generated protobuf code in ``v1`` and the codec between bytes and our own types, validated at the gate."""
