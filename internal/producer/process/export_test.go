package process

import "errors"

// Scanning makes a producer for which the kernel has no connector.
func Scanning() *Producer {
	p := New()
	p.connect = func() (*connector, error) { return nil, errors.New("not in this test") }
	return p
}

// Connector says why there is none here; nil: there is.
func Connector() error {
	c, err := openConnector(connectorBuffer)
	if err == nil {
		c.close()
	}
	return err
}
