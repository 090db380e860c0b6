"""Test files in Go, read and carried out."""
