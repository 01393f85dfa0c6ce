package belfry

// The words of String are the text form too, so that a log in JSON says what
// one in text says.

// MarshalText is the word of String. It never fails.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MarshalText is the word of String. It never fails.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText is the word of String. It never fails.
func (s LinkState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
