"""Agents answer in conversations: providers of models, runs, tools, and what they used."""
