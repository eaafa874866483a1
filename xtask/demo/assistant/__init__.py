"""A small chat assistant whose workers grow, for the reasons for which real ones did.

Every endpoint but the last leaves something behind; each module says what it forgets.
"""
