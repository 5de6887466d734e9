"""Figures: each function turns measurements into a picture and the data that the picture shows.

A module per question, so that a notebook's code digest covers its own figure and no other.
"""
