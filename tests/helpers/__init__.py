"""What tests share: small models, families of problems, toy checkouts, the worker of several
processes.
"""
