"""Requests and answers: bodies within limits, names and tokens that are checked, files of the pages, errors in JSON.

``server`` listens, and ends once requests in progress are answered. No model is used here.
"""
