"""Tests of a privacy claim by what was released: pure statistics, which can contradict a claim and never prove it."""
