"""The wire: records as Avro bytes in the Confluent format, and the names and settings of the topics they travel on.

A port: it may import the records and their JSON form, and nothing of the machines. docs/records.md describes the format
for people who write to these topics from other languages.
"""
