"""Recipes compared in repeated, interleaved trials: the measuring stick of every claim."""
