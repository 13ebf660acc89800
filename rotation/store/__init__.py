"""The store on SQLAlchemy: tables, moves and claims, audit chain, sealing."""
