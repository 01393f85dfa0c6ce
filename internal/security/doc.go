// Package security makes and checks what members and clients prove themselves
// with: the cluster's certificate authority, node identities, group secrets,
// TLS configurations, and the rights of local users (security.md).
//
// There is no plaintext mode and no switch for one: an agent without keys does
// not start. The authority on membership is the configuration, never a
// certificate alone; the TLS configurations ask for it at each handshake. DESIGN.md has the
// reasons.
package security
