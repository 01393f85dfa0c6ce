package sysctl

// NewAt is newAt, for tests of the other package.
var NewAt = newAt
