// Package transport carries datagrams and frames between the nodes of one
// cluster: sealed UDP datagrams on every link ([UDP]) and one idle gRPC stream
// over mutual TLS for each pair of nodes ([Streams]). Nothing unauthenticated
// gets further than this package. It takes keys and TLS configurations as
// values; its DESIGN.md says why the sockets are as they are.
package transport
