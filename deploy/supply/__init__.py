"""The supply chain: locks, licences, bills of materials and audits. Tools of developers, no part of what serves."""
