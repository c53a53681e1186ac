"""Networks of other libraries: torch modules and ONNX graphs in and out.

Readers walk a foreign graph and build layers by one ``Builder``; writers go through the layers of a
network by a table that has a row for each. torch and onnx are imported where they are needed.
"""
