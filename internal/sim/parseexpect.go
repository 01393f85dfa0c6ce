package sim

import "github.com/belfry-ha/belfry"

func (p *parser) expectation() error {
	e := Expect{Line: p.line}
	e.Never = p.skip("never")
	if done, err := p.pairExpectation(&e); done || err != nil {
		return err
	}
	word := p.next()
	if e.Never {
		e.Verdict = word
		if word = p.next(); word == "*" {
			e.Any = true
			return p.verdict(&e)
		}
	}
	nodes, err := p.nodes(word)
	if err != nil {
		return err
	}
	if len(nodes) != 1 {
		return p.fault("%q is not one node", word)
	}
	e.Node = nodes[0]
	if e.Never {
		return p.verdict(&e)
	}
	e.Verdict = p.next()
	if p.skip("within") {
		if e.Within, err = p.duration(0, maxRun); err != nil {
			return err
		}
	}
	if err := p.expect("at"); err != nil {
		return err
	}
	switch word := p.next(); word {
	case "all":
		e.All = true
	case "first":
	default:
		return p.fault("%q is no place for a verdict; at all or at first", word)
	}
	return p.verdict(&e)
}

func (p *parser) verdict(e *Expect) error {
	if _, err := belfry.ParseVerdict(e.Verdict); err != nil {
		return p.fault("%q is no verdict; joining, up, stalled, unreachable, down or left", e.Verdict)
	}
	p.s.Expects = append(p.s.Expects, *e)
	return nil
}
