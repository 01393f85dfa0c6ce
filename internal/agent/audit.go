package agent

import (
	"context"
	"crypto"
	"crypto/rand"

	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// openAudit begins to keep what is done here. It ends after all that writes
// into it, with the state directory.
func (a *Agent) openAudit(keys *security.Keys) error {
	log, err := security.OpenAuditLog(security.AuditOptions{
		Dir:    a.opts.Config.State,
		Sign:   signer(keys),
		Failed: a.auditFailed,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- log.Run(ctx) }()
	a.onStop("audit", func(context.Context) error {
		stop()
		return <-ended
	})
	a.auditor = log
	return nil
}

// signer signs with the identity of the node.
func signer(keys *security.Keys) func([]byte) []byte {
	key, ok := keys.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		panic("agent: the node's key can not sign") // security.Load gives no other
	}
	return func(message []byte) []byte {
		signature, err := key.Sign(rand.Reader, message, crypto.Hash(0))
		if err != nil {
			panic("agent: Ed25519 does not sign: " + err.Error())
		}
		return signature
	}
}

// auditFailed says once that records wait for the disk, and once that they do
// so no more.
func (a *Agent) auditFailed(err error) {
	if err != nil {
		a.log.Error("audit log can not be written; records wait in memory, those that find no room are counted", "err", err)
		return
	}
	a.log.Info("audit log is written again")
}

// audit hands over what the API did or refused.
func (a *Agent) audit(r api.AuditRecord) {
	result := security.ResultDone
	if r.Denied != nil {
		result = security.ResultDenied + ": " + r.Denied.Error()
	}
	a.auditor.Audit(security.Record{
		Subject: r.Subject, Role: r.Role, Right: r.Right, Operation: r.Operation, Target: r.Target, Generation: r.Generation, Result: result,
	})
}
