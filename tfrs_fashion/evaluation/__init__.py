"""Evaluation: metrics, confidence intervals, paired differences, checks, exploration and reports.

This folder reads tables, Candidates and embeddings as arrays, never a model.
"""
